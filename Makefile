.PHONY: check test test-gpu
check:
	ruff check . && ruff format --check . && mypy
test:
	bash tests/run
test-gpu:
	python -m pytest -m gpu
