"""The version of the package, in one place, and what a version of a dataset looks like."""

import re

VERSION = "0.1.0"
#: Of a release: https://semver.org, without build metadata.
SEMANTIC_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
