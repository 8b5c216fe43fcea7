# `make demo` and `make test` work from a bare clone: they make .venv and install the tested set first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# A silent clip from the Foley Stage (simulated), then its sound by the bundled model.
demo: $(STAMP)
	$(BIN)/python -m mmaudio.stage preview --seed 2000016 --family strike --size 224 --silent --overwrite --out output/silent.mp4
	$(BIN)/python demo.py --variant tiny_16k --video output/silent.mp4 \
		--prompt "a stick hits a wooden box and a glass block" --output output/demo --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) output dist
