"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Ansible's commands are those beside this Python, whether or not the virtual environment is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
