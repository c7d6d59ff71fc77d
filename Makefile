# The five commands that people type. Each sets up .venv first if that is needed.
.PHONY: quickstart test slow check docs

quickstart:  # SGD and SAM on real images: a table and a picture
	bash scripts/quickstart.sh

test:  # the fast tests
	bash scripts/test.sh

slow:  # the slow tests: about four seconds or more each
	bash scripts/test.sh -m slow

check:  # everything that must pass before a change lands
	bash .ci/run

docs:  # the website, in site/
	bash scripts/setup.sh requirements.txt requirements-dev.txt
	.venv/bin/python -m mkdocs build --strict
