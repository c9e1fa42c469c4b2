# Plain targets: make prints every command it runs, so each can be done by hand.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# RPC lets 'llava-edge worker' put layers on other machines; it has to be chosen when llama.cpp is compiled.
# The file leaves out half of llama.cpp's compiling, which nobody here loads, and mends its AMX products for older GCC.
export CMAKE_ARGS ?= -DGGML_RPC=on -DCMAKE_PROJECT_INCLUDE='$(CURDIR)/runtime/ggml/llama_cpp.cmake'
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# pip install, with how far the compiling is on the screen
INSTALL = $(BIN)/python -P runtime/ggml/installing.py

.PHONY: chat test coverage quick docs check clean

chat: $(VENV)/runtime-installed
	$(BIN)/llava-edge ask examples/sign.png "What does the sign say?"

test: $(VENV)/dev-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=25
	$(MAKE) check

# apart from test: tracing every line, in commands too, makes the tests take nearly twice as long
coverage: $(VENV)/dev-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-fail-under=95

quick: $(VENV)/dev-installed
	$(BIN)/python -m pytest -q -m "not slow and not network"

docs: $(VENV)/dev-installed
	PYTHONPATH=tests $(BIN)/python -m support.generated_pages
	PYTHONPATH=tests $(BIN)/python -m support.checkpoint_tables

check: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typing && ln -sfn ../.. build/typing/llava_edge
	MYPYPATH=build/typing $(BIN)/mypy $(foreach room,runtime store export quantize train benchmark serve cli,-p llava_edge.$(room))

$(VENV)/runtime-installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -c constraints-dev.txt -e ".[cpu]"
	touch $@

$(VENV)/dev-installed: pyproject.toml constraints-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints-dev.txt torch==2.13.0
	$(INSTALL) -c constraints-dev.txt -e ".[cpu,heic,schema,export,quantize,train,benchmark,serve,clients,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
