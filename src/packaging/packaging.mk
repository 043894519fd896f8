# SPDX-License-Identifier: MIT
#
# Further ways to have the library: one file, a tarball, Debian packages.

# Users' programs, by each way to have the library. (The variant is that of the scripts that `make check` leaves to this.)
check-package: ## users' programs by CMake, meson, Debian packages, a tarball: two minutes; installs these tools
	@$(DEPS) $(DEPS_CHECK) cmake meson ninja debhelper lintian
	+@$(CHECK) VARIANT=package TESTS='$(or $(TESTS),$(notdir $(basename $(shell grep -l '^\# variants:.* package' tests/package/*.sh))))' \
		libs run-tests

# ---- The ABI -------------------------------------------------------------------------------------------------------

abi: libs ## writes down anew what programs rely on (src/packaging/abi.txt), after a change that is meant
	@src/packaging/abi $(BUILD) '$(CC)' >$(BUILD)/abi.txt
	@test -n '$(URING_SRC)' || { echo 'This needs liburing, or half of it would be lost.'; exit 1; }
	@diff src/packaging/abi.txt $(BUILD)/abi.txt; cp $(BUILD)/abi.txt src/packaging/abi.txt

# ---- One file ------------------------------------------------------------------------------------------------------

ONE_DIR    := $(BUILD)/amalgamation
ONE_HEADER := $(filter-out %_uring.h,$(wildcard include/*.h))

amalgamation: $(ONE_DIR)/ctxfd.c $(ONE_DIR)/ctxfd.h ## libctxfd as two files, ctxfd.c and ctxfd.h, in build/amalgamation

$(ONE_DIR)/ctxfd.h: $(ONE_HEADER) src/packaging/amalgamate
	@mkdir -p $(@D)
	@src/packaging/amalgamate h $(VERSION) $(ONE_HEADER) >$@

$(ONE_DIR)/ctxfd.c: $(SRC) $(wildcard src/*/*.h) $(ONE_DIR)/ctxfd.h src/packaging/amalgamate
	@mkdir -p $(@D)
	@src/packaging/amalgamate c $(VERSION) $(SRC) >$@

# The whole suite against the one file: its object takes the place of all others.
check-amalgamation: ## the test programs, against the amalgamation: three minutes
	@$(DEPS) $(DEPS_CHECK)
	+@$(CHECK) amalgamation
	+@$(CHECK) BUILD=$(BUILD)/one VARIANT=one OBJ=$(BUILD)/one/obj/one.o ONE='$(ONE_DIR)' \
		TESTS='$(or $(TESTS),$(notdir $(basename $(wildcard tests/*/test_*.c))))' run-tests

$(BUILD)/obj/one.o: $(ONE)/ctxfd.c $(ONE)/ctxfd.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -Wall -Wextra $(WERROR) $(CFLAGS) -fexceptions -c -o $@ $<

# ---- A tarball -----------------------------------------------------------------------------------------------------

DIST := ctxfd-$(VERSION)
GIT  := git -c safe.directory='*' -c core.abbrev=12 -c tar.umask=022

# git archive gives all files the commit's time: one commit, one tarball, whoever makes it and when.
dist: $(BUILD)/dist/meson.build ## a tarball of what is committed, which is a meson subproject too, and ctxfd.wrap, in build/dist
	@$(GIT) rev-parse HEAD >/dev/null 2>&1 || { echo 'This needs git, and the repository: the tarball is made of a commit.'; exit 1; }
	@left=$$($(GIT) status --porcelain src include) && test -z "$$left" || { echo 'Commit first: the tarball has what is committed.'; exit 1; }
	@$(GIT) archive --prefix=$(DIST)/ --add-file=$< HEAD >$(BUILD)/dist/$(DIST).tar
	@gzip -9nf $(BUILD)/dist/$(DIST).tar
	@cd $(BUILD)/dist && printf '%s\n' '[wrap-file]' 'directory = $(DIST)' 'source_filename = $(DIST).tar.gz' \
		"source_hash = $$(sha256sum $(DIST).tar.gz | cut -d ' ' -f 1)" '' '[provide]' 'dependency_names = ctxfd, ctxfd-uring' >ctxfd.wrap
	@echo "$(BUILD)/dist/$(DIST).tar.gz is commit $$($(GIT) rev-parse --short HEAD)."

# 'src/a.c', 'src/b.c',
comma := ,
meson_list = $(patsubst %,'%'$(comma),$(1))

$(BUILD)/dist/meson.build: src/packaging/meson.build.in FORCE
	@mkdir -p $(@D)
	@sed -e 's,@VERSION@,$(VERSION),' -e "s;@SOURCES@;$(call meson_list,$(SRC));" -e "s;@HEADERS@;$(call meson_list,$(ONE_HEADER));" \
		-e "s;@URING_SOURCES@;$(call meson_list,$(wildcard src/uring/*.c));" $< >$@

# ---- Debian packages -----------------------------------------------------------------------------------------------

deb: ## Debian packages, in build/deb: libctxfd0, libctxfd-dev, libctxfd-uring0, libctxfd-uring-dev
	@$(DEPS) cc pkg-config liburing debhelper
	@src/packaging/deb $(VERSION) $(abspath $(BUILD))/deb
	@rm -r $(BUILD)/deb/$(DIST) && ls $(BUILD)/deb/*.deb

.PHONY: deb abi dist check-package amalgamation check-amalgamation
