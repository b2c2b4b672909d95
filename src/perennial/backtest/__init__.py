"""A known past run through the real cycle: a series of windows, or retraining policies over one."""

from perennial.backtest.series import Backtest, Window, backtest

__all__ = ["Backtest", "Window", "backtest"]
