from components.fresh.stage import run
from components.recognition.stages import main

if __name__ == "__main__":
    main(run)
