"""A dataset of labelled samples that many processes append to: facade, transactions, snapshots, labels, care."""
