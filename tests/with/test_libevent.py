#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""libevent: a done fd and a dispatcher's in its loop."""

from loops import main_for

main_for("libevent")
