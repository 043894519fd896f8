# SPDX-License-Identifier: MIT
# The test that has a resolver of its own, and notes who is dialled.
$(BUILD)/tests/test_net: private override LDFLAGS += -Wl,--wrap=getaddrinfo,--wrap=freeaddrinfo,--wrap=connect
# The test for which no thread can be made.
$(BUILD)/tests/test_group: private override LDFLAGS += -Wl,--wrap=pthread_create
