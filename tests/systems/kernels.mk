# SPDX-License-Identifier: MIT

check-kernels: ## the test programs on Debian's 5.10, 6.1, 6.12 and newest kernels, in qemu; KERNELS="6.1 6.12" chooses
	@$(DEPS) cc pkg-config cmocka $(DEPS_URING) qemu-system-x86_64 busybox cpio
	+@$(AGAIN) run-kernels

run-kernels: $(RUN_BIN)
	@BUILD='$(BUILD)' URING='$(URING)' CC='$(CC)' TESTS='$(TESTS)' sh tests/systems/kernels $(KERNELS)

.PHONY: check-kernels run-kernels
