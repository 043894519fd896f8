#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""hiredis_async: a command that blocks in Redis ends with its context."""

from redis_clients import main_for

main_for("hiredis_async")
