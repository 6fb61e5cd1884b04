# make check  - everything a reviewer would otherwise have to look for, and the tests under the race detector
# make test   - installs what the tests need, runs every test, the slow ones and those with real clients too
# make bench  - the side-by-side benchmarks; prints a table
# make dist   - static binaries for Linux and macOS in dist/
# make docs   - writes the generated reference pages
# make fault-table - runs the fault tests at length and writes docs/reliability.md
# make compat-tables - runs the tests of AWS's services and writes docs/compat
# make isolation-table - runs the hostile guests, as root, and writes docs/isolation.md
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
export GOFLAGS ?= -buildvcs=false

.PHONY: build check fmt vet static darwin race test deps runsc bench dist docs isolation-table fault-table compat-tables

build:
	CGO_ENABLED=0 go build -trimpath -o bin/ebb ./cmd/ebb

check: fmt vet static darwin race

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted:"; echo "$$out"; exit 1; fi

vet:
	go vet ./...

static:
	go run $(STATICCHECK) ./...

darwin:
	CGO_ENABLED=0 GOOS=darwin go build ./...

# -short leaves out the long fault rounds, which `make test` runs.
race: deps
	CGO_ENABLED=1 go test -race -shuffle=on -short -timeout 15m -json ./... | go run ./internal/testkit/testsum

test: deps runsc
	go test -timeout 20m -json ./... | go run ./internal/testkit/testsum
	go test -timeout 10m -json ./internal/bus -skip '$(EMBEDDED)' -args -bus.cluster | go run ./internal/testkit/testsum
	go test -timeout 10m -json ./internal/wire/dynamodb -args -dynamodb.postgres | go run ./internal/testkit/testsum

# What of the bus's tests opens stores of its own or needs no server, and would be the same over a cluster.
EMBEDDED := Kill|Nodes|Jump|Linear|Cluster|Fold|Parse|TenThousand

# The tests of strong isolation run with it in `make test` and are left out where it cannot be built.
runsc:
	@scripts/runsc || echo "runsc cannot be built here; tests of strong isolation are left out"

deps:
	@scripts/test-deps

bench:
	@bench/run

dist:
	@for os in linux darwin; do for arch in amd64 arm64; do \
	  echo "dist/ebb-$$os-$$arch"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch go build -trimpath -ldflags '-s -w' -o dist/ebb-$$os-$$arch ./cmd/ebb; \
	done; done

docs:
	go run ./cmd/ebb docs docs/reference

# The rootless run is a part of it, so this is for root.
isolation-table:
	scripts/runsc
	@mkdir -p bin
	go test -count 1 -short ./internal/sandbox/oci -run 'TestDriver_Conforms' -args -sandboxtest.verdicts $(CURDIR)/bin/strong.verdicts
	go test -count 1 -short ./internal/sandbox/process -run 'TestDriver_Conforms' -args -sandboxtest.table $(CURDIR)/docs/isolation.md -sandboxtest.include $(CURDIR)/bin/strong.verdicts
	go test -count 1 ./test -run 'TestGuests_Hostile' -args -guests.page $(CURDIR)/docs/isolation.md
	go test -count 1 ./test -run 'TestBuilds_HostileScriptsReachNothing' -args -builds.table $(CURDIR)/docs/isolation.md

# Kills servers, their stores and what leads them, and writes what became of each event into docs/reliability.md.
fault-table:
	go test -count 1 -timeout 30m ./test/faults -args -faults.page $(CURDIR)/docs/reliability.md

# What is here of AWS's services, and which test has seen each operation succeed.
compat-tables:
	@mkdir -p bin && rm -f bin/wire.seen
	EBB_WIRE_SEEN=$(CURDIR)/bin/wire.seen go test -count 1 ./internal/wire/... ./internal/server
	EBB_WIRE_SEEN=$(CURDIR)/bin/wire.seen go test -count 1 ./test -run 'TestWire|TestAWS'
	go test -count 1 ./internal/server -run TestCompat_Pages -args -compat.dir $(CURDIR)/docs/compat -compat.seen $(CURDIR)/bin/wire.seen
