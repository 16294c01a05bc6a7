from components.fresh.stage import run
from wordmill.store.stages import main

if __name__ == "__main__":
    main(run)
