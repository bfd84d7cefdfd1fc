"""PySide6 stands in for PythonQt, so that the module's own panel runs over Slicer's real scene without the application.

It is strict: a class, property, method or signal that is not known raises, because a stand-in that forgives proves
nothing. Its classes and members are listed with their headers in `slicer_api`; what it cannot test (lifetimes
and overloads of the real PythonQt, the looks of the real widgets) is in docs/slicer.md.
"""

from standin.application import install, open_module

__all__ = ["install", "open_module"]
