"""Care of a store: `verify` finds damage, `compaction` merges small segments, `garbage` removes what nobody can reach."""
