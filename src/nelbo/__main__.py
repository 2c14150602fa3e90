"""`python -m nelbo`."""

import sys

from nelbo.cli.main import main

sys.exit(main())
