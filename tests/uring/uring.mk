# SPDX-License-Identifier: MIT
# The tests that have the kernel refuse submissions, and know fewer opcodes.
$(BUILD)/tests/test_uring_busy: private override LDFLAGS += -Wl,--wrap=io_uring_submit,--wrap=io_uring_submit_and_wait,--wrap=io_uring_get_events
$(BUILD)/tests/test_uring_refused: private override LDFLAGS += -Wl,--wrap=io_uring_register_probe
