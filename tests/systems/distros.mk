# SPDX-License-Identifier: MIT

check-distros: ## README's two commands in bare Debian 12, 13 and unstable, as root: five minutes each; DISTROS="trixie" chooses
	@$(DEPS) debootstrap
	@BUILD='$(abspath $(BUILD))' TESTS='$(TESTS)' sh tests/systems/distros $(DISTROS)

.PHONY: check-distros
