# make book · make test · make notebooks · make fuzz · make repository URL=https://github.com/OWNER/NAME
# make colab · make versions
# What is given on the command line goes to the shell as a variable of its own and is never read as commands.
override URL := $(value URL)
override NAMES := $(value NAMES)
override ASSIGNMENT := $(value ASSIGNMENT)
override SUBMISSIONS := $(value SUBMISSIONS)
override SEED := $(or $(value SEED),0)
override OUT := $(or $(value OUT),graded)
override SPOT := $(value SPOT)
override CHAPTERS := $(value CHAPTERS)
export URL NAMES ASSIGNMENT SUBMISSIONS SEED OUT SPOT CHAPTERS
PYTHON ?= python3
BIN := .venv/bin
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Progress bars are for people: they would only leave noise in stored notebooks and logs.
export TQDM_DISABLE = 1

.PHONY: book test notebooks fuzz repository assignments grade slides colab versions clean

book: .venv/installed
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo "The book's first page: $(CURDIR)/_build/html/index.html"

test: book .venv/vnu .venv/axe
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(CORES) --dist loadscope --nbval --nbval-current-env --nbval-cell-timeout=120 notebooks/*.ipynb
	$(BIN)/pytest -q -n $(CORES) tests

notebooks: .venv/installed
	$(BIN)/python -m tools.notebooks --workers $(CORES) $$NAMES

# Minutes: damaged files of every format, counted by what became of them.
fuzz: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/test_bad_calls.py
	$(BIN)/python tests/fuzzing.py --workers $(CORES)

repository: .venv/installed
	$(BIN)/python tools/repository.py "$$URL"

# The notebooks of a class into notebooks/assignments/: make assignments SEED=2027
assignments: .venv/installed
	$(BIN)/python -m course.release --seed "$$SEED"

# Slides of the book's figures into slides/: make slides [CHAPTERS="03_attention_pooling"]
slides: .venv/installed
	$(BIN)/python -m tools.slides $$CHAPTERS

# make grade ASSIGNMENT=a1 SUBMISSIONS=folder SEED=2027 OUT=folder; for a4 SPOT=1 trains one of the runs again
grade: .venv/installed
	$(BIN)/python -m course.grade "$$ASSIGNMENT" "$$SUBMISSIONS" --seed "$$SEED" --out "$$OUT" $${SPOT:+--spot}

# Other versions than the pinned ones, in environments of their own; see tools/environments.py --help.
colab: .venv/installed
	$(BIN)/python tools/environments.py colab card copies

versions: .venv/installed
	$(BIN)/python tools/environments.py lowest newest sphinx

# The HTML checker; its test is skipped where Java or npm is missing.
.venv/vnu: .venv/installed
	@if command -v java && command -v npm; then npm install --silent --no-fund --ignore-scripts --prefix $@ vnu-jar@26.9.27; fi >/dev/null

# The accessibility checker; its test is skipped where npm is missing.
.venv/axe: .venv/installed
	@if command -v npm; then npm install --silent --no-fund --ignore-scripts --prefix $@ axe-core@4.14.1; fi >/dev/null

clean:
	rm -rf _build .venv

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 14) else f"Python 3.11 to 3.14 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book,test]'
	touch $@
