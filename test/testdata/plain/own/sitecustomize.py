import builtins

builtins.the_projects_own = True
