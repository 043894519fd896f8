# SPDX-License-Identifier: MIT

check-platforms: ## the same on 32 bits, musl, clang, and on emulated aarch64 and s390x: half an hour; PLATFORMS="musl m32" chooses
	@$(DEPS) cc pkg-config xz
	@BUILD='$(BUILD)' MAKE='$(MAKE)' sh tests/systems/platforms $(PLATFORMS)

.PHONY: check-platforms
