# SPDX-License-Identifier: MIT
# The tests that stop the library inside a system call (gate.h).
$(addprefix $(BUILD)/tests/test_,halfway halfway_merge unsignalled crowded): private override LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime

# The test that stops it with a lock in hand.
$(BUILD)/tests/test_lock: private override LDFLAGS += -Wl,--wrap=syscall,--wrap=counted_malloc,--wrap=counted_free

# The test that takes RWF_NOWAIT away, and the one that stops a thread as it accepts.
$(BUILD)/tests/test_io: private override LDFLAGS += -Wl,--wrap=syscall
$(BUILD)/tests/test_accept: private override LDFLAGS += -Wl,--wrap=accept4

# The tests that stop the library as it makes something for the first time, and in the middle of its dispatcher's work.
$(BUILD)/tests/test_first_use: private override LDFLAGS += -Wl,--wrap=epoll_create1,--wrap=timerfd_create
$(BUILD)/tests/test_dispatch_halfway $(BUILD)/tests/test_fork_halfway: private override LDFLAGS += -Wl,--wrap=syscall
