# SPDX-License-Identifier: MIT
# test_faults links the library's objects joined into one, in which each call that tests/faults/faults.def lists goes to a wrapper:
# --wrap there touches the library's calls only, not those of the test program.

FAULT_CALLS := $(shell LC_ALL=C sed -n 's/^CALL[^,]*, \([a-z0-9_]*\),.*/\1/p' tests/faults/faults.def)

# In a fortified library some calls go to checked functions of other names; so it is made once more, without.
FAULTY_OBJ := $(if $(findstring FORTIFY,$(CPPFLAGS) $(CFLAGS)),$(SRC:src/%.c=$(BUILD)/tests/faulty/%.o),$(OBJ))

$(BUILD)/tests/faulty/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(LIB_FLAGS) -U_FORTIFY_SOURCE $(DEP) -c -o $@ $<

$(BUILD)/tests/obj/faulty.o: $(FAULTY_OBJ) tests/faults/faults.def tests/faults/faults.mk
	@mkdir -p $(@D)
	$(call quiet,LD)$(CC) $(CFLAGS) -fno-lto -nostdlib -r $(FAULT_CALLS:%=-Wl,--wrap=%) -Wl,--wrap=free,--wrap=calloc -o $@ $(FAULTY_OBJ)

$(BUILD)/tests/test_faults: $(BUILD)/tests/obj/faults/faults.o $(BUILD)/tests/obj/faulty.o
$(BUILD)/tests/test_faults: private TEST_LIB =

include $(wildcard $(BUILD)/tests/faulty/*.d $(BUILD)/tests/faulty/*/*.d)
