# SPDX-License-Identifier: MIT
# The test that takes RWF_NOWAIT away, and the one that stops a thread as it accepts.
$(BUILD)/tests/test_io: private override LDFLAGS += -Wl,--wrap=syscall
$(BUILD)/tests/test_accept: private override LDFLAGS += -Wl,--wrap=accept4
