# SPDX-License-Identifier: MIT
# The model of the protocol, checked by spin.

check-model: ## model-checks the cancel protocol, and that broken ones are caught (spin): a quarter of an hour
	@$(DEPS) cc spin
	@BUILD='$(abspath $(BUILD))' CC='$(CC)' tests/model/run $(TESTS)

.PHONY: check-model
