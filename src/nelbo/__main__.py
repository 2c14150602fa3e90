"""`python -m nelbo`."""

import sys

from nelbo.cli import main

sys.exit(main())
