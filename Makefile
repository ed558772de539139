# What there is to make: "make help".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= dev
NODES   ?= 2
GOBUILD := CGO_ENABLED=0 go build -trimpath

# Tools are built once per user and version: a fresh clone finds them.
TOOLS         ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/telepresence-tools
GOLANGCI      := v2.15.0
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI)/golangci-lint

RESOLVED := $(TOOLS)/systemd-resolved

CLUSTER    := test/cluster/cluster
KEEP       ?=
APP_IMAGE  := cluster.test/app:1
UNIT_TESTS ?= ./...

# In the run of several steps each says when it begins and how long it took.
steps = for step in $(1); do echo "==> $$step"; began=$$SECONDS; $(MAKE) $$step; echo "<== $$step: $$((SECONDS - began)) s"; done

.PHONY: help
help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  NODES=$(NODES) nodes of the cluster; KEEP=1 leaves it running; KUBECONFIG=FILE tests on a cluster of yours"

##@ programs

.PHONY: build
build: ## bin/telepresence and bin/telepresence-agent
	@$(GOBUILD) -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ ./cmd/telepresence ./cmd/telepresence-agent
	@ls -l bin/telepresence bin/telepresence-agent

.PHONY: image
image: ## bin/telepresence-agent.tar, the agent's image, under the name that the command expects; and the image cache's
	@mkdir -p bin
	@go run ./images/build -version $(VERSION) -o bin/telepresence-agent.tar
	@go run ./images/build -imagecache -version $(VERSION) -arch $$(go env GOARCH) -o bin/telepresence-imagecache.tar

# The agent once more, as another version: an image that no node has, not even from the run before.
.PHONY: cached-image
cached-image:
	@$(GOBUILD) -ldflags "-s -w -X main.version=cached" -o bin/cached/ ./cmd/telepresence-agent
	@go run ./images/build -binary bin/cached/telepresence-agent -ref docker.io/telepresence/telepresence-agent:cached \
		-env MADE=$$(date +%s%N) -arch $$(go env GOARCH) -o bin/telepresence-agent-cached.tar

.PHONY: sample-app
sample-app: ## bin/app and bin/app.tar, the sample application and its image; bin/inclusterclient
	@$(GOBUILD) -ldflags "-s -w" -o bin/ ./test/app ./test/inclusterclient
	@go run ./images/build -binary bin/app -ref $(APP_IMAGE) -env FROM_IMAGE=yes -arch $$(go env GOARCH) -o bin/app.tar

.PHONY: docs
docs: ## docs/reference and docs/man, from the flag table
	go test ./cmd/telepresence -run Reference -count=1 -update

##@ tests

.PHONY: test
test: ## all that must hold: what CI runs
	@trap '$(MAKE) cluster-end' EXIT; \
	$(call steps,setup lint test-unit test-cluster cluster-ready test-e2e)

.PHONY: setup
setup: setup-cluster setup-tools ## install packages, build the cluster's components and the linter: once

.PHONY: setup-cluster
setup-cluster:
	@$(CLUSTER) setup

.PHONY: setup-tools
setup-tools: $(GOLANGCI_LINT) $(RESOLVED)

$(GOLANGCI_LINT):
	@echo "building golangci-lint $(GOLANGCI)"
	@GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)

# For a test. The package is only unpacked: installed, it would take this machine's
# names over. What the test doesn't find, it skips.
$(RESOLVED):
	@mkdir -p $@.new && cd $@.new && apt-get download --quiet=2 systemd-resolved libsystemd-shared && \
		for package in *.deb; do dpkg-deb --extract $$package .; done && rm *.deb && mv $@.new $@ || \
		{ rm -rf $@.new; echo "no systemd-resolved to be had here: its test is skipped"; }

.PHONY: lint
lint: $(GOLANGCI_LINT) ## go vet and golangci-lint, here and in test/cluster; the darwin build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	@GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./cmd/telepresence
	@$(GOLANGCI_LINT) run ./...
	@cd test/cluster && $(GOLANGCI_LINT) run --config ../../.golangci.yml ./...

.PHONY: test-unit
test-unit: ## house rules and unit tests, with the race detector
	@test/gotest -race -timeout 15m $$(go list $(UNIT_TESTS) | grep -v /test/e2e)

.PHONY: test-cluster
test-cluster: ## start, grow, break and stop a cluster, and look for what it leaves behind
	@cd test/cluster && ../gotest -count=1 -timeout 15m .

.PHONY: test-e2e
test-e2e: build sample-app cached-image ## the scripts of test/e2e on the cluster that runs, or on KUBECONFIG's
	@test/docker/docker start; eval "$$(test/docker/docker env)"; docker load --quiet --input bin/app.tar; \
	E2E=required test/gotest -count=1 -timeout 30m -parallel 4 ./test/e2e/...

.PHONY: bench-imagecache
bench-imagecache: build image ## how fast nodes get an image from each other, on a cluster of its own; RUNS=5 NODES=8
	@NODES=$(if $(filter command line,$(origin NODES)),$(NODES),8) test/bench/imagecache

.PHONY: bench-mount
bench-mount: ## the pod's files, beside Debian's sshfs where it is installed: small files, a big one, ls -lR, grep -r
	@go test -run '^$$' -bench Mount -benchtime 1x ./pkg/mount

.PHONY: bench-docker
bench-docker: build sample-app ## how fast a container reads 10,000 files of docker run -v, alone and in a session; RUNS=5
	@test/docker/docker start; eval "$$(test/docker/docker env)"; docker load --quiet --input bin/app.tar; \
	KUBECONFIG=$${KUBECONFIG:-$$PWD/.cluster/admin.kubeconfig} APP_IMAGE=$(APP_IMAGE) test/bench/docker-files

##@ cluster

.PHONY: cluster-ready
cluster-ready: image sample-app ## start the cluster in .cluster and load the images
ifdef KUBECONFIG
	@echo "KUBECONFIG is set: its cluster is used, and must have $(APP_IMAGE) and the agent's image"
else
	@$(CLUSTER) start --nodes $(NODES)
	@$(CLUSTER) load bin/telepresence-agent.tar bin/app.tar
endif

.PHONY: cluster-stop
cluster-stop: ## stop the cluster in .cluster and leave nothing behind
	@$(CLUSTER) stop

# After a run of steps, also one that was broken off.
.PHONY: cluster-end
cluster-end:
	@test/docker/docker stop
ifdef KUBECONFIG
else ifneq ($(KEEP),)
	@echo "the cluster goes on; make cluster-stop ends it"
else
	@$(CLUSTER) stop
endif

.PHONY: demo
demo: ## show the main job on a real cluster
	@trap '$(MAKE) cluster-end' EXIT; \
	$(call steps,setup-cluster build cluster-ready); \
	CLUSTER_BIN=$$($(CLUSTER) bin) test/demo
