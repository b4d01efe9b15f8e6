def run_case(case, run):
    raise NotImplementedError
