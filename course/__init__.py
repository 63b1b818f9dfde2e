"""The course beside the package: assignments, their hidden tests, and the grader that runs them."""
