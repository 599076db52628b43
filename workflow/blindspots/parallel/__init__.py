"""Work in parts on several cores, with results that do not depend on the number of cores."""
