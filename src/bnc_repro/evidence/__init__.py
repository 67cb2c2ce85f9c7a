"""From rows to meaning: tables, statistics, hypotheses, verdicts, figures."""
