# SPDX-License-Identifier: MIT
# The tests that stop the library as it makes something for the first time, and in the middle of its dispatcher's work.
$(BUILD)/tests/test_first_use: private override LDFLAGS += -Wl,--wrap=epoll_create1,--wrap=timerfd_create,--wrap=pthread_create
$(BUILD)/tests/test_dispatch_halfway $(BUILD)/tests/test_fork_halfway $(BUILD)/tests/test_idle: private override LDFLAGS += -Wl,--wrap=syscall

# The test that steps in as the library reads a signal, and that saves what it has run before a signal ends it.
$(BUILD)/tests/test_signals: private override LDFLAGS += -Wl,--wrap=read,--wrap=raise
