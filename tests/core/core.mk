# SPDX-License-Identifier: MIT
# The tests that stop the library inside a system call (gate.h).
$(addprefix $(BUILD)/tests/test_,halfway halfway_merge unsignalled crowded): private override LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime

# The test that stops it with a lock in hand.
$(BUILD)/tests/test_lock: private override LDFLAGS += -Wl,--wrap=syscall,--wrap=counted_malloc,--wrap=counted_free
