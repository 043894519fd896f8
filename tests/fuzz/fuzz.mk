# SPDX-License-Identifier: MIT
# The fuzzer: see tests/fuzz/fuzz.c. tests/fuzz/corpus is what it begins with, and what test_scripts plays; what it finds beyond that
# goes to $(BUILD)/fuzz/corpus, and a script that fails to $(BUILD)/fuzz. `make fuzz-corpus` takes over what is worth keeping.

FUZZ := $(BUILD)/fuzz
FUZZ_CC ?= clang
FUZZ_SRC := $(SRC) tests/fuzz/fuzz.c $(addprefix tests/storm/,script.c model.c exact.c exact_errand.c)

$(FUZZ)/fuzz: $(FUZZ_SRC) $(wildcard src/*/*.h tests/storm/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)$(FUZZ_CC) $(TEST_FLAGS) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -o $@ $(FUZZ_SRC)

fuzz: ## libFuzzer with scripts on the whole API, for SECONDS=60
	@CC='$(FUZZ_CC)' sh tests/tools/deps cc fuzzer
	+@$(AGAIN) run-fuzz

run-fuzz: $(FUZZ)/fuzz
	@mkdir -p $(FUZZ)/corpus
	@cd $(FUZZ) && ./fuzz -max_len=501 -timeout=10 -max_total_time=$(SECONDS) -print_final_stats=1 \
		corpus "$(CURDIR)/tests/fuzz/corpus"

fuzz-corpus: $(FUZZ)/fuzz
	@mkdir -p $(FUZZ)/corpus
	@rm -rf $(FUZZ)/merged && mkdir $(FUZZ)/merged
	$(FUZZ)/fuzz -max_len=501 -set_cover_merge=1 -use_counters=0 $(FUZZ)/merged tests/fuzz/corpus $(FUZZ)/corpus
	rm -f tests/fuzz/corpus/* && cp $(FUZZ)/merged/* tests/fuzz/corpus

.PHONY: fuzz run-fuzz fuzz-corpus
