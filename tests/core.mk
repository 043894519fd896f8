# SPDX-License-Identifier: MIT
# The tests that stop the library inside a system call (gate.h).
$(BUILD)/tests/test_halfway $(BUILD)/tests/test_unsignalled: private LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime
