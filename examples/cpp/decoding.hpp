// What logits say: the characters that are read, how sure each is, and where it stands. The standard library alone.

#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace wordmill {

// The card's `decode` and its charset's `symbols`.
struct Rule {
  bool ctc = true;
  int blank = 0, first = 1;    // of ctc, whose blank comes before the characters
  int go = 0, stop = 1;        // of attention
  double temperature = 1;      // of confidences
  std::vector<std::string> symbols;
};

// A character of a reading; from where to where it stands, in shares of the width, where `placed`.
struct Character {
  std::string text;
  double confidence, start, end;
  bool placed;
};

// The likeliest class of each step and the logarithm of its probability, by a softmax.
struct Best {
  int number;
  double score;
};

// The characters of UTF-8 text, one string each.
inline std::vector<std::string> characters_of(const std::string& text) {
  std::vector<std::string> found;
  for (const char byte : text) {
    if ((byte & 0xC0) != 0x80 || found.empty()) found.emplace_back();
    found.back() += byte;
  }
  return found;
}

inline std::vector<Best> best_of(const float* logits, int steps, int classes) {
  std::vector<Best> best;
  for (const float* row = logits; row != logits + steps * classes; row += classes) {
    const float* peak = std::max_element(row, row + classes);
    double sum = 0;
    for (int c = 0; c < classes; ++c) sum += std::exp(row[c] - *peak);
    best.push_back({int(peak - row), -std::log(sum)});
  }
  return best;
}

// The steps that are characters.
inline std::vector<int> kept_of(const std::vector<Best>& best, const Rule& rule) {
  std::vector<int> kept;
  if (rule.ctc) {
    int before = rule.blank;
    for (int step = 0; step < int(best.size()); ++step) {
      if (best[step].number != rule.blank && best[step].number != before) kept.push_back(step);
      before = best[step].number;
    }
    return kept;
  }
  for (int step = 0; step < int(best.size()); ++step) {
    if (best[step].number == rule.stop) return kept;
    if (best[step].number != rule.go) kept.push_back(step);
  }
  return {};  // without a stop there is no text
}

// The middle of the frames of a run of one class, by their probabilities, in shares of the width.
inline double centre_of(const std::vector<Best>& best, int first) {
  double weights = 0, places = 0;
  for (int frame = first; frame < int(best.size()) && best[frame].number == best[first].number; ++frame) {
    weights += std::exp(best[frame].score);
    places += std::exp(best[frame].score) * (frame + 0.5);
  }
  return places / weights / best.size();
}

// Each stands from half way to the one before to half way to the next; one alone has all of the picture.
inline void place(std::vector<Character>& found, const std::vector<double>& centres) {
  const int last = int(found.size()) - 1;
  for (int i = 0; i <= last; ++i) {
    const double before = i ? (centres[i - 1] + centres[i]) / 2 : 0, after = i < last ? (centres[i] + centres[i + 1]) / 2 : 1;
    found[i].start = i || !last ? before : std::max(0.0, 2 * centres[i] - after);
    found[i].end = i < last || !last ? after : std::min(1.0, 2 * centres[i] - before);
    found[i].placed = true;
  }
}

// The characters of the logits (steps, classes) of a picture that fills such a share of the width.
// Attention's logits do not say where they stand, nor do CTC's of a picture that the file straightens.
inline std::vector<Character> read(const float* logits, int steps, int classes, const Rule& rule, bool straightened,
                                   double filled) {
  const std::vector<Best> best = best_of(logits, steps, classes);
  std::vector<Character> found;
  std::vector<double> centres;
  for (const int step : kept_of(best, rule)) {
    const double confidence = std::exp(best[step].score / rule.temperature);
    found.push_back({rule.symbols.at(best[step].number - rule.first), confidence, 0, 0, false});
    centres.push_back(rule.ctc ? centre_of(best, step) : 0);
  }
  if (!rule.ctc || straightened) return found;
  place(found, centres);
  for (Character& one : found) {
    one.start = std::min(1.0, one.start / filled);
    one.end = std::min(1.0, one.end / filled);
  }
  return found;
}

// A reading's confidence: the geometric mean of its characters', 0 where there are none.
inline double confidence_of(const std::vector<Character>& found) {
  double sum = 0;
  for (const Character& one : found) sum += std::log(one.confidence);
  return found.empty() ? 0 : std::exp(sum / found.size());
}

}  // namespace wordmill
