# SPDX-License-Identifier: MIT
#
# `make help` lists the targets. `make` needs a C compiler alone; what the others need, `make deps` installs.
#
# To be set from outside: CC, CXX, CPPFLAGS, CFLAGS, LDFLAGS, and AR, OBJCOPY and PKG_CONFIG, which go by CC; WERROR= keeps
# warnings from stopping the check targets, as they do nowhere else; URING=no leaves libctxfd-uring out (it is built when
# pkg-config knows liburing); PREFIX, DESTDIR, LIBDIR, INCLUDEDIR and MANDIR say where to install; BUILD is the folder that
# everything is built in; V=1 shows the commands; TESTS="tree wait" makes the check targets run only those tests;
# CTXFD_SLOW=n gives the tests n times as long.
#
# New files need no line here: src/uring/*.c goes into libctxfd-uring, what else is in src into libctxfd, src/examples/*.c are
# examples, and tests/FOLDER/test_*.c are test programs, whatever the folder's name: all are found by their names. Further
# targets come with fragments: src/packaging/packaging.mk, bench/bench.mk and tests/FOLDER/*.mk. A test program that needs more
# than the others says so in the fragment of its folder, for instance
#
#     $(BUILD)/tests/test_faults: private override LDFLAGS += -Wl,--wrap=eventfd
#
# ("override", or what is set on the command line would win.) The program itself is in $(BUILD)/tests, with no folder in its
# name, so no two tests can have the same.

.DEFAULT_GOAL := all
.SUFFIXES:
.DELETE_ON_ERROR:

# The same in every language: in one, [a-z] has no i, and in some, 0.5 is 0,5. (Before make 4.4 this is not for $(shell).)
export LC_ALL := C

BUILD      ?= build
PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man

# A space in one of these would make two names of it.
$(foreach v,BUILD PREFIX LIBDIR INCLUDEDIR MANDIR,$(if $(word 2,[$($v)]),$(error $v must not have spaces in it: "$($v)")))
# What is installed says where it is, to programs that are built in other folders.
$(foreach v,PREFIX LIBDIR INCLUDEDIR MANDIR,$(if $(filter-out /%,$($v)),$(error $v must begin with a slash: "$($v)")))

# Quoted for the shell.
quoted = '$(subst ','\'',$(1))'

# `make install` installs what was built: with the settings of the last build, but for those that it is given itself.
SETTINGS := CC CPPFLAGS CFLAGS LDFLAGS PKG_CONFIG URING
ifneq ($(and $(filter install,$(MAKECMDGOALS)),$(wildcard $(BUILD)/flags)),)
recall = $(if $(filter undefined default,$(origin $(1))),$(eval $(1) := $$(shell sed -n 's/^$(1)=//p' $(BUILD)/flags)))
$(foreach v,$(SETTINGS),$(call recall,$v))
endif

CFLAGS  ?= -O2 -g
VARIANT ?= plain

# The tools that belong to the compiler. A cross compiler's pkg-config is named after its machine; where there is none, there
# are no other libraries for that machine either.
ifeq ($(origin AR),default)
AR := $(or $(shell $(CC) -print-prog-name=ar 2>/dev/null),ar)
endif
ifeq ($(origin OBJCOPY),undefined)
OBJCOPY := $(or $(shell $(CC) -print-prog-name=objcopy 2>/dev/null),objcopy)
endif
ifeq ($(origin PKG_CONFIG),undefined)
PKG_CONFIG := $(if $(findstring clang,$(CC)),pkg-config,$(shell machine=$$($(CC) -dumpmachine 2>/dev/null) here=$$(cc -dumpmachine 2>/dev/null); \
	case $${machine%%-*} in ('' | "$${here%%-*}") echo pkg-config ;; (*) echo "$$machine-pkg-config" ;; esac))
endif

ifeq ($(origin URING),undefined)
URING := $(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo yes || echo no)
DEPS_URING := liburing
endif

VERSION := $(shell LC_ALL=C sed -n 's/^\#define CTXFD_VERSION_M[A-Z]*OR //p' include/ctxfd.h | paste -sd. -)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(WERROR)
# SAN holds a sanitizer's flags, from the check targets below. _GNU_SOURCE is defined as nothing, so that a source that
# defines it itself does not define it differently; nor do flags that are given to us.
FLAGS = -Iinclude $(CPPFLAGS) $(WARN) $(CFLAGS) -U_GNU_SOURCE -D_GNU_SOURCE= -std=gnu11 -pthread $(SAN)
DEP = -MMD -MP

quiet = $(if $(V),,@echo "  $(1)	$@";)

all: libs ## the libraries (the default)

# ---- Libraries -----------------------------------------------------------------------------------------------------

# One set of objects makes both the static and the shared library. Without interposition a public function that
# another one of the library calls is inlined or called directly, and never through the PLT. Exceptions of C++, and
# pthread_exit, may go through it out of a function of the program.
LIB_FLAGS = $(FLAGS) -Isrc -fPIC -fvisibility=hidden -fno-semantic-interposition -fno-lto -fexceptions -include src/export.h

SRC       := $(wildcard $(addprefix src/,*.c core/*.c dispatch/*.c calls/*.c run/*.c))
OBJ       := $(SRC:src/%.c=$(BUILD)/obj/%.o)
URING_SRC := $(if $(filter yes,$(URING)),$(wildcard src/uring/*.c))
URING_OBJ := $(URING_SRC:src/%.c=$(BUILD)/obj/%.o)
URING_CFLAGS := $(if $(URING_SRC),$(shell $(PKG_CONFIG) --cflags liburing))
URING_LIBS   := $(if $(URING_SRC),$(shell $(PKG_CONFIG) --libs liburing))

LIBS := $(BUILD)/libctxfd.a $(BUILD)/libctxfd.so
URING_LIB := $(if $(URING_SRC),$(BUILD)/libctxfd-uring.a)
LIBS += $(if $(URING_SRC),$(URING_LIB) $(BUILD)/libctxfd-uring.so)

libs: $(LIBS)

# Rebuilds all when compiler or flags are others than the last time; whether a warning is an error makes no difference.
BUILT_WITH = $(call quoted,$(filter-out $(WERROR),$(LIB_FLAGS))) $(foreach v,$(SETTINGS),$(call quoted,$v=$($v)))
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(BUILT_WITH) | cmp -s - $@ || printf '%s\n' $(BUILT_WITH) >$@

$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(LIB_FLAGS) $(DEP) -c -o $@ $<

$(BUILD)/obj/uring/%: private LIB_FLAGS += -DCTXFD_BUILDS_URING $(URING_CFLAGS)

# The static libraries hold one object each, in which the hidden names are local: none can clash with the program's.
# (Groups are resolved, since what was made local is lost when the linker keeps another object's copy of the group:
# 32-bit x86's thunks.)
$(BUILD)/obj/whole/ctxfd.o: $(OBJ)
$(BUILD)/obj/whole/ctxfd-uring.o: $(URING_OBJ)
$(BUILD)/obj/whole/%.o:
	@mkdir -p $(@D)
	$(call quiet,LD)$(CC) $(CFLAGS) -fno-lto -nostdlib -r -Wl,--force-group-allocation -o $@ $^
	@$(OBJCOPY) --localize-hidden $@

$(BUILD)/lib%.a: $(BUILD)/obj/whole/%.o
	$(call quiet,AR)rm -f $@ && $(AR) rcs $@ $^

# nodelete: its threads and its fork handler would outlive a dlclose.
LINK_SO = $(CC) $(CFLAGS) $(SAN) -shared -pthread -Wl,-soname,$(@F) -Wl,-z,defs -Wl,-z,nodelete \
	-Wl,-Bsymbolic-functions $(LDFLAGS)

$(BUILD)/libctxfd.so.0: $(OBJ) src/ctxfd.map
	$(call quiet,LD)$(LINK_SO) -Wl,--version-script=src/ctxfd.map -o $@ $(OBJ)

$(BUILD)/libctxfd-uring.so.0: $(URING_OBJ) src/ctxfd-uring.map $(BUILD)/libctxfd.so
	$(call quiet,LD)$(LINK_SO) -Wl,--version-script=src/ctxfd-uring.map -o $@ $(URING_OBJ) -L$(BUILD) -lctxfd $(URING_LIBS)

$(BUILD)/lib%.so: $(BUILD)/lib%.so.0
	@ln -sf $(<F) $@

# ---- Examples ------------------------------------------------------------------------------------------------------

# Compiled as a user would, against the public header.
EXAMPLES_SRC := $(filter-out $(if $(URING_SRC),,src/examples/uring_%),$(wildcard src/examples/*.c))
EXAMPLES     := $(EXAMPLES_SRC:src/%.c=$(BUILD)/%)

examples: $(EXAMPLES) ## the examples, into build/examples

$(BUILD)/examples/obj/%.o: src/examples/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(FLAGS) $(DEP) -c -o $@ $<

$(BUILD)/examples/obj/uring_%: private FLAGS += $(URING_CFLAGS)

$(BUILD)/examples/%: $(BUILD)/examples/obj/%.o $(BUILD)/libctxfd.a
	$(call quiet,LD)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/examples/uring_%: $(BUILD)/examples/obj/uring_%.o $(URING_LIB) $(BUILD)/libctxfd.a
	$(call quiet,LD)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(URING_LIBS) $(LDLIBS)

demo: ## the HTTP server, driven by curl: five seconds, and the installing
	@$(DEPS) cc curl
	+@$(AGAIN) $(BUILD)/examples/httpd
	@BUILD=$(BUILD) sh tests/examples/demo.sh

# ---- Tests ---------------------------------------------------------------------------------------------------------

# The tests link the library's own objects (internal names included), their calls of malloc and free routed through
# the harness, which counts them and can make them fail. TEST_LIB=$(BUILD)/libctxfd.a in a fragment gives a program
# the real one.
TEST_FLAGS = $(FLAGS) -Isrc -Itests -Itests/support -Wno-unused-parameter $(shell $(PKG_CONFIG) --cflags cmocka)
TEST_LIBS  = $(shell $(PKG_CONFIG) --libs cmocka) $(LDLIBS)
TEST_LIB   = $(BUILD)/tests/libctxfd.a

TESTS_SRC := $(filter-out $(if $(URING_SRC),,tests/uring/%),$(wildcard tests/*/test_*.c))
TESTS_OBJ := $(TESTS_SRC:tests/%.c=$(BUILD)/tests/obj/%.o)
TESTS_BIN := $(patsubst %.c,$(BUILD)/tests/%,$(notdir $(TESTS_SRC)))
HARNESS   := $(patsubst tests/%.c,$(BUILD)/tests/obj/%.o,$(wildcard tests/support/harness*.c))

tests: $(TESTS_BIN) ## the test programs, into build/tests

$(BUILD)/tests/obj/%.o: tests/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(TEST_FLAGS) $(DEP) -c -o $@ $<

$(BUILD)/tests/obj/uring/%: private TEST_FLAGS += $(URING_CFLAGS)

$(BUILD)/tests/libctxfd.a: $(OBJ)
$(BUILD)/tests/libctxfd-uring.a: $(URING_OBJ)
$(BUILD)/tests/lib%.a:
	@mkdir -p $(@D)
	$(call quiet,AR)rm -f $@ && $(AR) rcs $@ $^
	@$(OBJCOPY) $(foreach f,malloc calloc realloc aligned_alloc free,--redefine-sym $(f)=counted_$(f)) $@

# The object of test program $(1), whichever folder its source is in. (For when it is known which program make is at.)
object_of = $(filter %/$(1).o,$(TESTS_OBJ))
.SECONDEXPANSION:

$(BUILD)/tests/test_%: $$(call object_of,test_$$*) $(HARNESS) $(BUILD)/tests/libctxfd.a $(BUILD)/libctxfd.a
	$(call quiet,LD)$(CC) $(TEST_FLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(TEST_LIB) $(TEST_LIBS)

$(BUILD)/tests/test_uring%: $$(call object_of,test_uring$$*) $(HARNESS) $(BUILD)/tests/libctxfd-uring.a \
		$(BUILD)/tests/libctxfd.a
	$(call quiet,LD)$(CC) $(TEST_FLAGS) $(LDFLAGS) -o $@ $^ $(URING_LIBS) $(TEST_LIBS)

DEPS = CC='$(CC)' CXX='$(CXX)' sh tests/tools/deps
DEPS_CHECK = cc cxx pkg-config cmocka $(DEPS_URING) curl mandoc

# The tests are built by a second make, since the first may have had to install what they are found with. To us a warning
# is an error; it must not be one to a user, whose compiler may know warnings that ours does not.
AGAIN = $(MAKE) --no-print-directory
CHECK = $(AGAIN) WERROR=$(call quoted,$(if $(filter undefined,$(origin WERROR)),-Werror,$(WERROR)))
# With the claims of comments about locks checked (src/core/context.h).
ASAN = -DCTXFD_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

deps: ## installs what `make check` and `make demo` need and the machine lacks
	@$(DEPS) $(DEPS_CHECK)

check: ## builds and runs all tests: six or seven minutes on two cores
	@$(DEPS) $(DEPS_CHECK)
	+@$(CHECK) run-tests

check-asan: ## the same under AddressSanitizer and UndefinedBehaviorSanitizer: five minutes
	@$(DEPS) $(DEPS_CHECK) asan
	+@$(CHECK) BUILD=$(BUILD)/asan VARIANT=asan SAN='$(ASAN)' run-tests

check-tsan: ## the same under ThreadSanitizer: six minutes
	@$(DEPS) $(DEPS_CHECK) tsan
	+@$(CHECK) BUILD=$(BUILD)/tsan VARIANT=tsan SAN='-fsanitize=thread' run-tests

check-valgrind: ## the same under valgrind's memcheck: ten minutes
	@$(DEPS) $(DEPS_CHECK) valgrind
	+@$(CHECK) BUILD=$(BUILD)/valgrind VARIANT=valgrind run-tests

check-clang: ## the same, compiled by clang: five minutes
	@CC=clang CXX=clang++ sh tests/tools/deps $(DEPS_CHECK)
	+@$(CHECK) BUILD=$(BUILD)/clang VARIANT=clang CC=clang CXX=clang++ run-tests

check-all: ## all of these, one after the other
	+@failed=; for t in check check-asan check-tsan check-valgrind check-clang check-format; do \
		echo "$$t:"; $(AGAIN) $$t || failed=yes; done; test -z "$$failed"

check-format: ## whether all sources are formatted as .clang-format says, to clang-format 14 (others differ)
	@$(DEPS) clang-format
	@clang-format --dry-run -Werror $$(find include src tests bench -name '*.[ch]')
	@! for f in $$(find include src tests bench -name '*.[ch]'); do expand $$f | sed -n "/.\{121\}/s|^|$$f: wider than 120: |p"; done | grep .
	@echo 'All formatted.'

# Of the test programs, those that are to run.
CHOSEN  := $(foreach t,$(TESTS),$(BUILD)/tests/$(t) $(BUILD)/tests/test_$(t))
RUN_BIN := $(if $(TESTS),$(filter $(CHOSEN),$(TESTS_BIN)),$(TESTS_BIN))

run-tests: $(if $(filter plain clang,$(VARIANT)),libs) $(HARNESS) $(BUILD)/tests/libctxfd.a $(RUN_BIN) $(EXAMPLES)
	@BUILD='$(BUILD)' VARIANT='$(VARIANT)' URING='$(URING)' CC='$(CC)' CXX='$(CXX)' SAN='$(SAN)' TEST_CFLAGS=$(call quoted,$(CFLAGS)) MAKE='$(MAKE_COMMAND)' \
		tests/tools/run $(TESTS)

# ---- Install -------------------------------------------------------------------------------------------------------

HEADERS := $(filter-out $(if $(URING_SRC),,%_uring.h),$(wildcard include/*.h))
# What tells other build systems where the library is: src/packaging/NAME.in, with the folders filled in.
TELLING := $(patsubst %,pkgconfig/%.pc,ctxfd $(if $(URING_SRC),ctxfd-uring)) \
	$(patsubst %,cmake/ctxfd/ctxfd-%.cmake,config config-version)
MAN     := $(wildcard src/man/*.[1-9])
# Where each page goes: man3/ctxfd_cancel.3
man_path = man$(subst .,,$(suffix $(1)))/$(notdir $(1))
# The other functions on each page lead to it: man3/ctxfd_close.3=man3/ctxfd_cancel.3
man_names = $(shell LC_ALL=C sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([a-z0-9_]*\).*/\1/p' $(1))
MAN_LINKS := $(foreach m,$(MAN),$(foreach n,$(filter-out $(basename $(notdir $(m))),$(call man_names,$(m))), \
	$(call man_path,$(n)$(suffix $(m)))=$(call man_path,$(m))))

# Both libraries' files, since an uninstall need not know what was built.
INSTALLED = $(addprefix $(INCLUDEDIR)/,$(notdir $(wildcard include/*.h))) \
	$(foreach l,ctxfd ctxfd-uring,$(addprefix $(LIBDIR)/,lib$(l).a lib$(l).so lib$(l).so.0 pkgconfig/$(l).pc)) \
	$(addprefix $(LIBDIR)/,$(filter cmake/%,$(TELLING))) \
	$(foreach m,$(MAN),$(MANDIR)/$(call man_path,$(m))) \
	$(foreach l,$(MAN_LINKS),$(MANDIR)/$(firstword $(subst =, ,$(l))))
# A folder that install makes, or a file, can be read by all, whatever the umask of who types it.
INTO = umask 022; to=$(call quoted,$(DESTDIR));

# How the loader finds it: its index has the system's folders alone.
LOADER = $(if $(filter /usr/% /lib%,$(LIBDIR)),type ldconfig as root,set LD_LIBRARY_PATH to $(LIBDIR))

install: libs ## headers, libraries, files for pkg-config and CMake, man pages, under PREFIX (and DESTDIR)
	@$(INTO) mkdir -p "$$to$(INCLUDEDIR)" $(addprefix "$$to$(LIBDIR)"/,$(sort $(dir $(TELLING)))) $(addprefix "$$to$(MANDIR)"/,$(sort $(foreach m,$(MAN),$(dir $(call man_path,$(m))))))
	@$(INTO) install -m 644 $(HEADERS) "$$to$(INCLUDEDIR)"
	@$(INTO) install -m 644 $(filter %.a,$(LIBS)) "$$to$(LIBDIR)"
	@$(INTO) install -m 755 $(patsubst %.so,%.so.0,$(filter %.so,$(LIBS))) "$$to$(LIBDIR)"
	@$(INTO) for l in $(notdir $(filter %.so,$(LIBS))); do ln -sf $$l.0 "$$to$(LIBDIR)/$$l" || exit 1; done
	@$(INTO) for f in $(TELLING); do rm -f "$$to$(LIBDIR)/$$f"; \
		sed -e 's,@PREFIX@,$(PREFIX),' -e 's,@LIBDIR@,$(LIBDIR),' -e 's,@INCLUDEDIR@,$(INCLUDEDIR),' \
		-e 's,@VERSION@,$(VERSION),' src/packaging/$${f##*/}.in >"$$to$(LIBDIR)/$$f" || exit 1; done
	@$(INTO) for m in $(foreach m,$(MAN),$(call man_path,$(m))); do \
		install -m 644 src/man/$${m##*/} "$$to$(MANDIR)/$$m" || exit 1; done
	@$(INTO) for l in $(MAN_LINKS); do rm -f "$$to$(MANDIR)/$${l%=*}"; \
		echo ".so $${l#*=}" >"$$to$(MANDIR)/$${l%=*}" || exit 1; done
	@echo $(call quoted,Installed under $(DESTDIR)$(or $(PREFIX),/).)
	@$(if $(DESTDIR),,echo 'If a program does not find libctxfd.so.0, $(LOADER).')

uninstall: ## takes away what install put there, with the same PREFIX, DESTDIR and so on
	@$(INTO) rm -f $(INSTALLED:%="$$to"%)
	@$(INTO) rmdir "$$to$(LIBDIR)/cmake/ctxfd" 2>/dev/null || true

# ---- The rest ------------------------------------------------------------------------------------------------------

clean: ## removes the build folder
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(filter-out %.d,$(MAKEFILE_LIST)) | sort | \
		awk -F '\t' '{ printf "  make %-19s %s\n", $$1, $$2 }'

FORCE:
.PHONY: all libs examples demo tests deps check check-asan check-tsan check-valgrind check-clang check-all \
	check-format run-tests install uninstall clean help FORCE
.SECONDARY:

include $(wildcard src/packaging/packaging.mk bench/bench.mk tests/*/*.mk)
include $(wildcard $(addprefix $(BUILD)/,obj/*.d obj/*/*.d examples/obj/*.d tests/obj/*/*.d))
