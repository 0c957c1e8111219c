"""What a run will take, told before it runs.

``work`` says how much there is to do, ``learned`` what that has cost in earlier runs or
in a rehearsal, ``units`` puts the two together, ``table`` shows it, ``limits`` refuses a
run that is too dear. Plan and ``aitp estimate`` tell the same.
"""
