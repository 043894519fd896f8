# SPDX-License-Identifier: MIT

COVERAGE = $(BUILD)/coverage

# For gcc. Its own fork would throw away what the handlers of fork have counted; the last two are for
# processes that leave by _exit or die by a signal (save_counts in harness_tools.c).
COUNTING = --coverage -fprofile-update=atomic -fno-builtin-fork -Wl,-u,__gcov_dump,-u,__gcov_reset

# Without the scripts, which drive the examples and the tools.
coverage: ## what the tests run of src, and why they do not run the rest; the pages are in build/coverage
	@$(DEPS) $(DEPS_CHECK) gcovr
	@find $(COVERAGE) -name '*.gcda' -delete 2>/dev/null || true
	+@$(AGAIN) BUILD=$(COVERAGE) VARIANT=coverage CFLAGS='-O0 -g' SAN='$(COUNTING)' \
		TESTS='$(or $(TESTS),$(TESTS_BIN:$(BUILD)/tests/test_%=%))' run-tests
	@gcovr --root . --object-directory $(COVERAGE)/obj --filter src/ --exclude src/examples --json $(COVERAGE)/coverage.json \
		--html-details $(COVERAGE)/index.html $(COVERAGE)/obj
	@python3 tests/tools/coverage.py $(COVERAGE)/coverage.json tests/tools/uncovered

.PHONY: coverage
