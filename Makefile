# `make help` lists what there is. Everything is installed in .venv; state of local runs lives in .state.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RECIPE ?= quickstart
PIPELINE ?= crnn_vgg7
FORMAT ?= table
OVERLAY ?= local
BIN := .venv/bin
RUN := '$(BIN)/python' -m pipelines
# An argument as the shell takes it, whatever a path has in it.
q = '$(subst ','\'',$(1))'
# The lines of a recipe that a run may change from here.
CHANGES = $(if $(FRAMEWORK),--framework $(FRAMEWORK)) $(if $(BENCHMARKS),--benchmarks $(BENCHMARKS)) \
  $(if $(CATALOGUE),--catalogue $(call q,$(CATALOGUE))) $(foreach place,$(FROM),--from $(call q,$(place))) $(if $(filter-out 0,$(SMOKE)),--smoke) \
  $(if $(PROFILE),--hardware $(PROFILE)) $(if $(filter-out 0,$(TRACE)),--profile) $(if $(DEVICE),--device $(DEVICE)) $(if $(PROCESSES),--processes $(PROCESSES)) $(foreach change,$(SET),--set $(call q,$(change)))

# What becomes of work that other code has made.
OTHER = $(if $(filter-out 0,$(REUSE)),--reuse) $(if $(filter-out 0,$(AFRESH)),--afresh)
NIGHT = $(if $(filter-out 0,$(NIGHTLY)),--nightly)
ZONE = $(if $(TIMEZONE),--timezone $(TIMEZONE))

# A run is a dozen processes and the tests are hundreds: none of them compiles what another has compiled, and pip does
# not compile what none of them will import, which is most of what it installs.
unexport PYTHONDONTWRITEBYTECODE
PIP = $(BIN)/python -m pip install --quiet --no-compile -c requirements/constraints.txt
# Unpacked beside all else, for they are half of it; what they need is found or added then.
FRAMEWORKS := -r requirements/torch.txt -r requirements/mindspore.txt

# Golden files know nothing of a site's registry.
OUR_IMAGES := WORDMILL_REGISTRY=wordmill WORDMILL_TAG=dev

.DEFAULT_GOAL := help
.PHONY: help env run submit schedule schedules unschedule doctor images push manifests compile models compare read serve evaluate charset tune pseudo sweep accept rehearse test-docker test-cluster scan golden pretrained replay-keys bench-models bench-inference bench-data bench-train docs ui up down test tests test-slow lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  variables: RECIPE=$(RECIPE) FRAMEWORK= SMOKE=1 SET='train.epochs=2 ...' CATALOGUE=my.yaml FROM='mj_train=/data/mj' BENCHMARKS=a,b DEVICE=cpu PROCESSES=2 PROFILE=ascend-8p TRACE=1 NIGHTLY=1 REUSE=1 AFRESH=1 RUNS='a b' LAST=5 IMAGES=folder MODEL=champion DATA=folder CHARACTERS=1 ALTERNATIVES=3 CURVE=0 WRONG=0.02 TRAIN=0"

env: .venv/local.done  ## make the environment in .venv

.venv/local.done: requirements/control.txt requirements/torch.txt requirements/mindspore.txt requirements/serve.txt requirements/constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else "error: $(PYTHON) is Python %d.%d, 3.11 is needed: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@echo "making the environment in .venv: 4.6 GB, some minutes"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip==26.3
	@$(PIP) --no-deps $(FRAMEWORKS) & \
	  $(PIP) -r requirements/control.txt -r requirements/serve.txt; rest=$$?; wait $$! && exit $$rest
	@$(PIP) $(FRAMEWORKS)
	@touch $@

.venv/dev.done: .venv/local.done requirements/dev.txt
	@$(PIP) -r requirements/dev.txt
	@touch $@

run: .venv/local.done  ## run RECIPE from data to proven files on this machine; RUNNER=docker: in containers
	@$(RUN) run $(call q,$(RECIPE)) $(CHANGES) $(OTHER) $(NIGHT) $(if $(RUNNER),--runner $(RUNNER))

submit: .venv/local.done  ## start PIPELINE on Kubeflow; PROFILE=ascend-8p, WAIT=1 follows it, RUN_TAG= continues a run
	@$(RUN) submit $(call q,$(PIPELINE)) $(CHANGES) $(OTHER) $(NIGHT) $(if $(filter-out 0,$(WAIT)),--wait) $(if $(RUN_TAG),--run-tag $(call q,$(RUN_TAG)))

schedule: .venv/local.done  ## retrain PIPELINE every night, or by CRON="0 30 2 * * *", seconds first
	@$(RUN) schedule $(call q,$(PIPELINE)) $(CHANGES) $(if $(CRON),--cron "$(CRON)") $(ZONE)

schedules: .venv/local.done  ## list what the cluster runs by itself
	@$(RUN) schedules $(ZONE)

unschedule: .venv/local.done  ## retrain PIPELINE no more
	@$(RUN) unschedule $(call q,$(PIPELINE)) $(ZONE)

doctor: .venv/local.done  ## check a site: servers, rights, devices, images
	@$(RUN) doctor

images: .venv/local.done  ## build the stages' images; BASE=, ENVIRONMENTS=, DOCKER_OPTIONS=
	@$(RUN) images $(ENVIRONMENTS) $(if $(BASE),--base $(BASE)) $(if $(DOCKER_OPTIONS),--options=$(call q,$(DOCKER_OPTIONS)))

push: .venv/dev.done  ## push them to REGISTRY, pin their digests, write bills of materials
	@$(RUN) push $(if $(REGISTRY),--registry $(REGISTRY))

manifests: .venv/local.done  ## print what OVERLAY puts on a cluster: local, gpu, ascend, standalone
	@$(BIN)/python -m pipelines.cluster.site $(call q,$(OVERLAY))
	@kubectl kustomize manifests/overlays/$(OVERLAY)

compile: .venv/local.done  ## write PIPELINE for Kubeflow Pipelines as PIPELINE.yaml
	@$(RUN) compile $(call q,$(PIPELINE)) $(CHANGES) $(OTHER) $(NIGHT)

models: .venv/local.done  ## list every recipe's recogniser in both frameworks; FORMAT=json for programs
	@$(RUN) models $(if $(filter json,$(FORMAT)),--json)

compare: .venv/local.done  ## show RUNS side by side, or the LAST=5 of PIPELINE, and write compare.html
	@$(RUN) compare $(RUNS) $(if $(LAST),--recipe $(call q,$(PIPELINE)) --last $(LAST))

read: .venv/local.done  ## read the pictures of IMAGES with MODEL: RECIPE's champion, NAME/version, or a file; CHARACTERS=1, ALTERNATIVES=3
	@$(RUN) read $(call q,$(if $(IMAGES),$(IMAGES),$(error name the pictures: make read IMAGES=folder))) --recipe $(call q,$(RECIPE)) \
	  $(if $(MODEL),--model $(call q,$(MODEL))) $(if $(OUTPUT),--output $(call q,$(OUTPUT))) \
	  $(if $(filter-out 0,$(CHARACTERS)),--characters) $(if $(filter-out 0,$(ALTERNATIVES)),--alternatives $(ALTERNATIVES))

serve: .venv/local.done  ## serve MODEL, as for read, by HTTP on PORT, with a page to try it
	@$(RUN) serve --recipe $(call q,$(RECIPE)) $(if $(MODEL),--model $(call q,$(MODEL))) $(if $(PORT),--port $(PORT))

evaluate: .venv/local.done  ## measure MODEL (as for read) on DATA, a catalogue's set or a folder, without a run
	@$(RUN) evaluate $(call q,$(if $(DATA),$(DATA),$(error name the data: make evaluate DATA=folder))) --recipe $(call q,$(RECIPE)) \
	  $(if $(MODEL),--model $(call q,$(MODEL))) $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(LABELS),--labels $(call q,$(LABELS))) \
	  $(if $(CATALOGUE),--catalogue $(call q,$(CATALOGUE))) $(foreach place,$(FROM),--from $(call q,$(place))) $(if $(OUTPUT),--output $(call q,$(OUTPUT)))

charset: .venv/local.done  ## list the characters of DATA's labels that RECIPE's charset lacks, and write them to OUTPUT
	@$(RUN) charset $(call q,$(if $(DATA),$(DATA),$(error name the data: make charset DATA=my_words CATALOGUE=my.yaml))) --recipe $(call q,$(RECIPE)) \
	  $(if $(LABELS),--labels $(call q,$(LABELS))) $(if $(CATALOGUE),--catalogue $(call q,$(CATALOGUE))) \
	  $(foreach place,$(FROM),--from $(call q,$(place))) $(if $(OUTPUT),--output $(call q,$(OUTPUT)))

tune: .venv/local.done  ## train RECIPE's champion on for the words of DATA, some of which are held out; SET= as for run, CURVE=0
	@$(RUN) tune $(call q,$(if $(DATA),$(DATA),$(error name the data: make tune DATA=my_words CATALOGUE=my.yaml))) --recipe $(call q,$(RECIPE)) \
	  $(if $(LABELS),--labels $(call q,$(LABELS))) $(if $(CATALOGUE),--catalogue $(call q,$(CATALOGUE))) \
	  $(foreach place,$(FROM),--from $(call q,$(place))) $(if $(FRAMEWORK),--framework $(FRAMEWORK)) \
	  $(if $(DEVICE),--device $(DEVICE)) $(if $(PROCESSES),--processes $(PROCESSES)) $(foreach change,$(SET),--set $(call q,$(change))) \
	  $(if $(filter 0,$(CURVE)),--no-curve)

pseudo: .venv/local.done  ## label the pictures of IMAGES that MODEL reads surely, train RECIPE's champion on with them; WRONG=0.02, TRAIN=0
	@$(RUN) pseudo $(call q,$(if $(IMAGES),$(IMAGES),$(error name the pictures: make pseudo IMAGES=folder))) --recipe $(call q,$(RECIPE)) \
	  $(if $(MODEL),--model $(call q,$(MODEL))) $(if $(WRONG),--most-wrong $(WRONG)) $(if $(filter 0,$(TRAIN)),--no-train) \
	  $(if $(BENCHMARKS),--benchmarks $(BENCHMARKS)) $(if $(CATALOGUE),--catalogue $(call q,$(CATALOGUE))) \
	  $(foreach place,$(FROM),--from $(call q,$(place))) $(if $(FRAMEWORK),--framework $(FRAMEWORK)) \
	  $(if $(DEVICE),--device $(DEVICE)) $(if $(PROCESSES),--processes $(PROCESSES)) $(foreach change,$(SET),--set $(call q,$(change)))

sweep: .venv/local.done  ## list what takes room in S3 and no work of DAYS=30 and no registered model names; DELETE=1: a day after it was listed
	@$(RUN) sweep $(if $(DAYS),--days $(DAYS)) $(if $(filter-out 0,$(DELETE)),--delete)

accept: .venv/local.done  ## go on with what a SOURCE that has changed holds now
	@$(RUN) accept $(call q,$(if $(SOURCE),$(SOURCE),$(error name what has changed: make accept SOURCE=https://...)))

ui: .venv/local.done  ## open MLflow on the runs of the newest run's recipe, or of RECIPE
	@$(RUN) ui $(if $(filter command% environment%,$(origin RECIPE)),$(call q,$(RECIPE)))

up: .venv/local.done  ## start the embedded S3 and MLflow servers
	@$(RUN) up

down:  ## stop the embedded servers
	@if [ -x $(BIN)/python ]; then $(RUN) down; fi

test: .venv/dev.done  ## what CI runs: lint, and beside it the tests
	@$(MAKE) --no-print-directory -j 2 lint tests

tests: .venv/dev.done
	MALLOC_ARENA_MAX=2 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

rehearse: .venv/dev.done  ## train in jobs: one node's pods are lost, two nodes are network namespaces, as root, 10 minutes
	$(BIN)/python -m pytest tests/components/train/gang -m slow

test-docker: .venv/dev.done  ## the small run in containers against that in subprocesses, 6 minutes; after make images
	$(BIN)/python -m pytest -m slow tests/pipelines/local/test_containers_whole.py tests/components/serve/test_container.py

test-cluster: .venv/dev.done  ## the whole way on the cluster that is set up: runs, losses, nights, 45 minutes at most
	@$(BIN)/python -m tests.cluster

scan: .venv/dev.done  ## look for known vulnerabilities and for secrets in what is installed and shipped
	@$(BIN)/python -m tools.scan

test-slow: .venv/dev.done  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.done  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.done  ## bring the style in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: .venv/dev.done  ## accept compiled recipes, jobs and the first losses of training as the expected ones
	$(OUR_IMAGES) $(BIN)/python -m tests.golden
	$(OUR_IMAGES) $(BIN)/python -m tests.golden.jobs
	$(BIN)/python -m tests.wordmill.training.curves

bench-models: .state/peers.done  ## time every recogniser against its peers, 25 minutes
	@$(BIN)/python -m benchmarks.models

bench-inference: .state/peers.done  ## time readings by exported files against docTR, RapidOCR and OpenVINO
	@$(BIN)/python -m benchmarks.inference

bench-data: .venv/dev.done  ## measure the data plane against the peers' loaders, 5 to 15 minutes
	@$(BIN)/python -m benchmarks.data $(if $(PLOT),--plot $(call q,$(PLOT)))

bench-train: .venv/dev.done  ## measure whole training runs: processes, peers, start, waiting for data
	@$(BIN)/python -m benchmarks.train

pretrained: .venv/local.done  ## make the weights that come with the project anew: recipe small, two hours, and what it reads
	@$(RUN) run small
	@$(BIN)/python -m tools.pretrain

docs: .state/docs.done  ## build these pages, with a reference of the library, as a site in .state/site that needs no network
	@$(BIN)/python -m tools.build_site
	@NO_MKDOCS_2_WARNING=1 .state/docs/bin/python -m mkdocs build --quiet --strict --config-file .state/site.yml
	@echo .state/site/index.html

replay-keys: .venv/local.done  ## what keys would have had done again in the past, by bytes and by meaning; slow
	@$(BIN)/python -m tools.replay_keys

# The peers' environment sees .venv's packages behind its own, which saves 2 GB of frameworks.
.state/peers.done: benchmarks/requirements.txt .venv/local.done
	@rm -rf .state/peers
	@$(BIN)/python -m venv --without-pip .state/peers
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' >.state/peers/lib/python3.11/site-packages/main.pth
	@$(BIN)/python -m pip --python .state/peers/bin/python install --quiet --no-deps -r benchmarks/requirements.txt
	@touch $@

.state/docs.done: docs/requirements.txt .venv/local.done
	@rm -rf .state/docs
	@$(BIN)/python -m venv --without-pip .state/docs
	@$(BIN)/python -m pip --python .state/docs/bin/python install --quiet --no-deps -r docs/requirements.txt
	@touch $@

clean: down  ## stop the servers, remove environment, state and caches
	rm -rf .venv .state .mypy_cache .ruff_cache .pytest_cache kernel_meta rank_*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
