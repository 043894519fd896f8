# SPDX-License-Identifier: MIT
# The tests that stop the library inside a system call (gate.h).
$(addprefix $(BUILD)/tests/test_,halfway halfway_merge unsignalled crowded): private LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime

# The test that takes RWF_NOWAIT away.
$(BUILD)/tests/test_io: private LDFLAGS += -Wl,--wrap=syscall
