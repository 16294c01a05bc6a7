from components.recognition.stages import main
from components.smoke.stage import run

if __name__ == "__main__":
    main(run)
