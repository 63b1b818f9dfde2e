"""Hidden tests, one module for each assignment: ordinary Python that never enters a student's process."""
