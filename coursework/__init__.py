"""Coursework: student and solution notebooks from the book, and a table of grades for a class.

    python -m coursework make derive             a ready assignment
    python -m coursework make 3 --exercises 1 3  exercises of a chapter
    python -m coursework grade derive FOLDER     a class

The notebooks are in nbgrader's format, its own commands make and grade them, and the folder they
lie in is an ordinary nbgrader course. (README.md beside this file.)
"""
