"""The authors' door: DAG, task, operators, results as arguments, trigger rules, loading of DAG files."""
