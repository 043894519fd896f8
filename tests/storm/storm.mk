# SPDX-License-Identifier: MIT
# The storms: see storm/script.h, storm/shadow.h and storm/sim.h.

STORM_SRC := $(addprefix tests/storm/,script.c shadow.c errand.c world.c)

$(BUILD)/tests/test_storm: $(STORM_SRC:tests/%.c=$(BUILD)/tests/obj/%.o)
$(BUILD)/tests/test_scripts: $(addprefix $(BUILD)/tests/obj/storm/,script.o model.o exact.o exact_errand.o)

# test_schedules runs the library on a simulated machine: compiled for ThreadSanitizer, whose functions are ours, its own
# variables in sections that can be set back, its system calls renamed. No sanitizer of the check targets goes together
# with that.
SIM := $(BUILD)/tests/sim
SIM_TESTS := $(patsubst tests/%.c,$(SIM)/%.o,tests/storm/test_schedules.c $(wildcard tests/support/harness*.c tests/storm/sim*.c) $(STORM_SRC))
SIM_CALLS := malloc free eventfd timerfd_create timerfd_settime timerfd_gettime ioctl write read close fcntl poll ppoll \
	clock_gettime nanosleep syscall epoll_create1 epoll_ctl epoll_wait prctl $(addprefix pthread_,mutex_init mutex_destroy mutex_lock \
	mutex_unlock cond_init cond_destroy cond_wait cond_broadcast create detach join self sigmask atfork \
	once key_create setspecific) atexit
SIM_SECTIONS := $(foreach s,.data .data.rel .data.rel.local,--rename-section $(s)=simdata) \
	--rename-section .bss=simbss,alloc,load,data,contents

$(SIM)/lib/%.o: private override SAN =
$(SIM)/lib/%.o: src/%.c tests/storm/storm.mk $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(LIB_FLAGS) -U_FORTIFY_SOURCE -fsanitize=thread '-D_Thread_local=__attribute__((section("simtls")))' $(DEP) -c -o $@ $<
	@$(OBJCOPY) $(foreach f,$(SIM_CALLS),--redefine-sym $(f)=sim_$(f)) $(SIM_SECTIONS) $@

# So that the order which the storm's own atomics make is known to the machine.
$(patsubst tests/%.c,$(SIM)/%.o,$(filter-out %script.c,$(STORM_SRC))): private override CFLAGS += -fsanitize=thread

$(SIM)/%.o: private override SAN =
# At link time a sanitizer would be one for the whole program.
$(SIM)/%.o: tests/%.c tests/storm/storm.mk $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(TEST_FLAGS) -fno-lto $(DEP) -c -o $@ $<

$(BUILD)/tests/test_schedules: private override SAN =
$(BUILD)/tests/test_schedules: $(SIM_TESTS) $(SRC:src/%.c=$(SIM)/lib/%.o)
	$(call quiet,LD)$(CC) $(TEST_FLAGS) $(LDFLAGS) -no-pie -o $@ $^ $(TEST_LIBS)

SECONDS ?= 60

stress: $(addprefix $(BUILD)/tests/,test_schedules test_scripts test_storm) ## the storms, for SECONDS=60 each, from a seed of their own
	@seed=$$(date +%s); for t in $^; do \
		echo "$$t, STORM_SEED=$$seed"; STORM_SECONDS=$(SECONDS) STORM_SEED=$$seed $$t || exit 1; done

.PHONY: stress

include $(wildcard $(addprefix $(BUILD)/tests/,sim/*/*.d sim/lib/*/*.d))
