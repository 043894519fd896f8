# SPDX-License-Identifier: MIT
# The test for which no thread can be made.
$(BUILD)/tests/test_errno: private override LDFLAGS += -Wl,--wrap=pthread_create
