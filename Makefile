.PHONY: check quick test test-gpu mutants
check:
	ruff check . && ruff format --check . && mypy
# few generated examples, nothing marked slow: under a minute on two cores
quick:
	COLLAVO_TESTS=quick OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python -m pytest tests/unit -m "not slow"
test:
	bash tests/run
test-gpu:
	python -m pytest -m gpu
mutants:
	python -m tests.mutants
