#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""glib: a done fd and a dispatcher's in its loop."""

import signal

from loops import main_for

main_for("glib", aborts=signal.SIGTRAP)
